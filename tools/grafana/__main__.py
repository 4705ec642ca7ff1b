"""Write the dashboard to where Grafana reads it, and its test too."""

from pathlib import Path
from typing import Final

from grafana.dashboard import as_json

PATH: Final = Path(__file__).resolve().parents[2] / "deploy/grafana/outbox.json"

if __name__ == "__main__":
    PATH.write_text(as_json())
    print(f"Written: {PATH}")
