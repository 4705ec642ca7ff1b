"""Write the dashboard beside its code; Grafana reads it from there, and so does its test."""

from pathlib import Path
from typing import Final

from grafana.dashboard import as_json

PATH: Final = Path(__file__).with_name("outbox.json")

if __name__ == "__main__":
    PATH.write_text(as_json())
    print(f"Written: {PATH}")
