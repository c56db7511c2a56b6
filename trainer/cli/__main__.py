"""`python -m trainer.cli`, as the command `cowest`."""

from trainer.cli import main

if __name__ == "__main__":
    main()
