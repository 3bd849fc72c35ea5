from bench.cli import app
from dehaze.memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()
    app(prog_name="python -m bench")
