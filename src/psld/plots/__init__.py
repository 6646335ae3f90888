"""Pictures: grids of images, panels, and paths through phase space. matplotlib is imported only where it draws."""

from psld.plots.phase_space import save_phase_space
from psld.plots.pictures import save_beside, save_grid, save_images

__all__ = ["save_beside", "save_grid", "save_images", "save_phase_space"]
