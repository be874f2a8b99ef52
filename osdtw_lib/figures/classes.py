"""Figure of single classes."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from .style import BLUE, captioned, plain


def worst(table: pd.DataFrame, count: int = 10) -> go.Figure:
    """table: class, training_images, test_images, recall, recall_low, recall_high (%); the classes with the lowest recall."""
    own = table[table["test_images"] > 0].sort_values("recall", kind="stable").head(count)
    names = plain(f"{name} ({images} to train)" for name, images in zip(own["class"], own["training_images"]))
    spread = {"type": "data", "symmetric": False, "array": own["recall_high"] - own["recall"]}
    spread["arrayminus"] = own["recall"] - own["recall_low"]
    marker = {"color": BLUE, "size": 9}
    figure = go.Figure(go.Scatter(x=own["recall"], y=names, error_x=spread, mode="markers", marker=marker))
    figure.update_xaxes(title="recall (%)", range=[0, 100])
    figure.update_yaxes(type="category", autorange="reversed")
    figure.update_layout(title=f"The {len(own)} classes named right least often", height=140 + 30 * len(own))
    return captioned(figure, "Share of a class's test images named right, with the 95 % interval (Wilson) of that many images.")
