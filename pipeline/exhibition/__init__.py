"""The exhibition: a visitor takes a photograph in the browser and is shown the paintings that look like them.

Sec. 7 of Cornia et al. (TOMM 2022). The search is the library's own; nothing of a visitor is written or logged.
"""
