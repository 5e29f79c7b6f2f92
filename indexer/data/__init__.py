"""From a data spec to decoded, class-balanced samples."""
