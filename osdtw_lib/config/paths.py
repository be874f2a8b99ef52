"""Where the project lies: relative paths in a parameter file count from here."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
