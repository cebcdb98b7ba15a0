"""``python -m alignzoo``; with several devices, ``accelerate launch -m alignzoo run ...``."""

from alignzoo.cli.main import main

if __name__ == "__main__":
    main()
