"""The command line: thin commands that parse, call the library and render. Only this package imports typer."""
