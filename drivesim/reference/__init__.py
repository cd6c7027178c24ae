"""The ground-truth world: HighwayEnv roads and traffic, seen through a camera that this package draws itself.

The learned model never imports it. Surfaces, looks, scenery and the camera know nothing of drivers.
"""
