() => {
  // Gradio leaves these pictures without a text, and the divider between before and after to the mouse.
  const dress = slider => {
    slider.querySelectorAll('img').forEach((picture, i) => {
      const text = ['Before: hazy', 'After: haze removed'][i];
      if (picture.alt !== text) picture.alt = text;
    });
    const divider = slider.querySelector('[data-testid=slider]');
    if (!divider || divider.role === 'slider') return;
    const place = () => {
      const box = divider.getBoundingClientRect(), whole = divider.parentElement.getBoundingClientRect();
      divider.ariaValueNow = Math.round(100 * (box.x + box.width / 2 - whole.x) / whole.width);
      return [box.x + box.width / 2, box.y + box.height / 2, whole.width / 20];
    };
    Object.assign(divider, {tabIndex: 0, role: 'slider', ariaLabel: 'Divider between before and after',
      ariaValueMin: 0, ariaValueMax: 100});
    divider.addEventListener('focus', place);
    divider.addEventListener('keydown', event => {
      const sign = {ArrowLeft: -1, ArrowRight: 1}[event.key];
      if (!sign) return;
      event.preventDefault();
      const [x, y, step] = place();
      const drag = [['mousedown', divider, x], ['mousemove', window, x + sign * step], ['mouseup', window, x]];
      const how = {clientY: y, view: window, bubbles: true, cancelable: true};
      for (const [kind, target, clientX] of drag) target.dispatchEvent(new MouseEvent(kind, {clientX, ...how}));
      setTimeout(place, 100);
    });
  };
  const look = () => {
    document.querySelectorAll('.before-after').forEach(dress);
    document.querySelectorAll('#examples img:not([alt]), #examples img[alt=""]').forEach(picture => {
      picture.alt = picture.src.split('/').pop().split('.')[0].replaceAll('-', ' ');
    });
  };
  const show = () => document.documentElement.classList.add('built');
  let still = setTimeout(show, 250);
  const changed = () => {
    look();
    clearTimeout(still);
    still = setTimeout(show, 250);
  };
  for (const kind of ['error', 'loadeddata'])
    document.addEventListener(kind, event => {
      if (!event.target.matches?.('#clip video')) return;
      document.querySelector('#clip').classList.toggle('unplayable', kind === 'error');
      if (kind === 'error') event.stopPropagation(); // the hint above says more than the alarm that would follow
    }, true);
  new MutationObserver(changed).observe(document.body, {childList: true, subtree: true});
  look();
}
