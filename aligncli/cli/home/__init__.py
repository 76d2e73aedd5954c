"""What a terminal gets beyond plain commands: the home screen, and questions for what a command line lacks."""
