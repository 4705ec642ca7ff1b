"""Django's own tests of task backends, where they were unpacked, run against ours."""
