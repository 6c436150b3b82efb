"""Makes image_cams.npz: what pytorch-grad-cam makes of a small network and three pictures.

Run once, in an environment of its own (grad-cam 1.5.7 beside this project's packages), never by the tests::

    PYTHONPATH=REPOSITORY:tests/support python tests/explain/data/make_image_cams.py

The network is ``image_cam_case.network()``, the pictures ``image_cam_case.pictures()``; the target layer is what the
block is given (``layer4``), the targets are classes 0, 1 and 2. Stored are activations and gradients there, ``NAME``
(3, h, w), the library's maps before its ReLU and scaling, ``NAME_scaled`` (3, 32, 32) after them, and ``fullgrad``
(3, 32, 32), its whole result. All float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from image_cam_case import network, pictures
from pytorch_grad_cam import EigenGradCAM, FullGrad, GradCAM, GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

METHODS = {"gradcam": GradCAM, "gradcam++": GradCAMPlusPlus, "eigengradcam": EigenGradCAM}


def main() -> None:
    """Write the file beside this one."""
    model, images = network(), pictures()
    targets = [ClassifierOutputTarget(i) for i in range(len(images))]
    stored: dict[str, np.ndarray] = {}
    for name, method in METHODS.items():
        with method(model=model, target_layers=[model.layer4]) as cam:
            stored[f"{name}_scaled"] = cam(input_tensor=images, targets=targets)
            watched = cam.activations_and_grads
            activations, gradients = watched.activations[0].numpy(), watched.gradients[0].numpy()
            stored[name] = cam.get_cam_image(images, model.layer4, targets, activations, gradients, False)
            stored["activations"], stored["gradients"] = activations, gradients
    with FullGrad(model=model, target_layers=[]) as cam:
        stored["fullgrad"] = cam(input_tensor=images, targets=targets)
    out = Path(__file__).with_name("image_cams.npz")
    np.savez_compressed(out, **{name: np.float32(values) for name, values in stored.items()})


if __name__ == "__main__":
    main()
