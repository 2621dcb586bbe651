"""SQL, table or file -> one SELECT with a key, in the warehouse's own dialect."""

from backhaul.models.model import model_columns, model_select, only_keys, open_model

__all__ = ["model_columns", "model_select", "only_keys", "open_model"]
