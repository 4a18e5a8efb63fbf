"""Uncertainty methods with weights of their own, which heads are compared with. One file a method; `registry` knows them by name.

Each is fitted on the same pictures, clicks and steps as a head, written to a file, and judged on the same masks.
"""
