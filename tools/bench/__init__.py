"""What `perception bench` measures: one topic a file, all on real or simulated scans."""
