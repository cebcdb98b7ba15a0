"""``python -m alignzoo``; under a launcher of the user's own, ``torchrun -m alignzoo run ...``."""

from alignzoo.cli.main import main

if __name__ == "__main__":
    main()
