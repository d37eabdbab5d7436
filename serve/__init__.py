"""The runtime: read an image, open a bundle, predict. Needs no TensorFlow and no Keras.

from serve import Classifier, read_image

classifier = Classifier("model.onnx")
pixels = read_image("shoe.jpg", classifier.document.image)
probabilities = classifier.predict(pixels[None])
"""

from serve.bundle import BundleDocument, BundleError
from serve.classifier import Classifier
from serve.images import ImageError, ImageSpec, read_image

__version__ = "0.1.0"

__all__ = [
    "BundleDocument",
    "BundleError",
    "Classifier",
    "ImageError",
    "ImageSpec",
    "read_image",
]
