"""`python -m aligncli` is the `aligncli` command."""

from aligncli.cli.app import main

if __name__ == "__main__":
    main()
