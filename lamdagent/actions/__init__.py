"""WHAT CAN BE DONE: action types and the functions behind them, one file per family."""
