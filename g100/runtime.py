"""Judging with an exported model, where torch is not installed: `from g100.runtime import load_exported`."""

from g100.foundations.errors import G100Error
from g100.foundations.runtime import Exported, Inspection, Scoring, load_exported

__all__ = ["Exported", "G100Error", "Inspection", "Scoring", "load_exported"]
