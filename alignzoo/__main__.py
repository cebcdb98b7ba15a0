"""``python -m alignzoo``, and ``accelerate launch -m alignzoo run ...`` for several devices."""

from alignzoo.cli.main import main

if __name__ == "__main__":
    main()
