"""`python -m g100` is the command `g100`; `accelerate launch -m g100` starts it in several processes."""

from g100.experiments.cli import main

if __name__ == "__main__":
    main()
