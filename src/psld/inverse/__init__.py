"""Linear inverse problems: measurements of an image, and models and samplers that are given one."""
