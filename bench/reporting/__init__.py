"""What becomes of the figures: medians, tables, plots, the page.

Works import `statistics` and `sections`; nothing here starts or measures anything.
"""
