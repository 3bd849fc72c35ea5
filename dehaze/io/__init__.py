"""Read and write photographs and clips: files, formats, names."""
