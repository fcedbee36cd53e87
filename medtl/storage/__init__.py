"""Files on disk: whole or not there, locked, cached, and tables and YAML as people write them."""
