"""`python -m sfsc_timm.run`: another name of `python -m sfsc_timm.timm_script`."""

from .timm_script import main

__all__ = ['main']

if __name__ == '__main__':
    main()
