"""Whether what would be uploaded is whole and installs alone: `make release-check`."""
