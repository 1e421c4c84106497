"""Files and standard output, read and written safely: whole or not at all."""
