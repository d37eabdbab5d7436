"""The runtime: read an image, open a bundle, predict. Needs no TensorFlow and no Keras.

from serve import Classifier, read_image

classifier = Classifier("model.onnx")
pixels = read_image("shoe.jpg", classifier.document.image)
probabilities = classifier.predict(pixels[None])
"""

from serve.bundle import BundleDocument, BundleError
from serve.classifier import Classifier
from serve.description import Description
from serve.image_spec import ImageSpec
from serve.images import ImageError, read_image

__version__ = "0.1.0"

__all__ = [
    "BundleDocument",
    "BundleError",
    "Classifier",
    "Description",
    "ImageError",
    "ImageSpec",
    "read_image",
]
