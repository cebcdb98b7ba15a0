"""The shapes of a data set's rows."""

from __future__ import annotations

from typing import Literal, get_args

Shape = Literal["pairs", "unpaired", "ranked", "demonstrations"]
"""The form of a data set's rows:

==================  ======================================================================
``pairs``           a prompt with two responses, the chosen one first
``unpaired``        a prompt with one response, labelled desirable or undesirable
``ranked``          a prompt with two or more responses, best first; the number may vary
``demonstrations``  a prompt with one response to imitate, without a label
==================  ======================================================================
"""
SHAPES: tuple[Shape, ...] = get_args(Shape)
