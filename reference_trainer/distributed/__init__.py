"""Several ranks: processes that train one model together, one device each."""
