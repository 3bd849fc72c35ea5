"""Limits of what a configuration may ask for. It can come from anyone, and even a network's outline takes time."""

from typing import Annotated

from pydantic import Field

Width = Annotated[int, Field(ge=4, le=4096)]  # channels
Count = Annotated[int, Field(ge=0, le=16)]  # blocks or experts in a row
