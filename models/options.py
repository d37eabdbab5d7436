"""Options of the architectures: typed, validated, and quick to read since free of Keras."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]


def list_of(value: Any) -> Any:
    """A list from what people write for one: `8,16` and, of one item, `8`. Others stay."""
    if isinstance(value, str):
        return listed(value)
    return [value] if type(value) in (int, float) else value


def listed(value: Any) -> Any:
    """The same, but a number stays a number."""
    if not isinstance(value, str) or "," not in value:
        return value
    try:
        return [int(part) if part.strip().isdecimal() else float(part) for part in value.split(",")]
    except ValueError:
        return value


Counts = Annotated[list[Count], BeforeValidator(list_of)]

Initializer = Literal[
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "orthogonal",
    "uniform",
]


INITIALIZERS: dict[Initializer, str] = {
    "glorot_normal": "Normal, of variance 2 / (inputs + outputs) (Glorot and Bengio 2010)",
    "glorot_uniform": "Uniform, of variance 2 / (inputs + outputs) (Glorot and Bengio 2010)",
    "he_normal": "Normal, of variance 2 / inputs (He et al. 2015)",
    "he_uniform": "Uniform, of variance 2 / inputs (He et al. 2015)",
    "lecun_normal": "Normal, of variance 1 / inputs (LeCun et al. 1998)",
    "lecun_uniform": "Uniform, of variance 1 / inputs (LeCun et al. 1998)",
    "normal": "Normal, of deviation 0.05 (Krizhevsky et al. 2012, with 0.01)",
    "orthogonal": "Orthogonal rows or columns (Saxe et al. 2014)",
    "uniform": "Uniform, from -0.05 to 0.05 (Rumelhart et al. 1986, from -0.3 to 0.3)",
}
"""What each is, and its source."""


class Options(BaseModel):
    """A frozen group of options: no unknown key, no silent conversion, docstrings as help texts."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class StartOptions(Options):
    """Where the weights of every architecture come from."""

    init_from: str | None = None
    """A run or .keras file whose weights are taken, where name and shape of a layer fit."""


class KernelOptions(StartOptions):
    """What the kernels of every architecture have."""

    initializer: Initializer = "he_normal"
    """Distribution of the initial kernels."""
    initializer_scale: float | None = Field(None, gt=0)
    """Deviation of normal, bound of uniform (null: 0.05), factor of the others (null: 1)."""
    l1: float = Field(0.0, ge=0)
    """L1 penalty on kernels, added to the loss (Tibshirani 1996)."""
    l2: float = Field(0.0, ge=0)
    """L2 penalty on kernels, added to the loss (Krogh and Hertz 1991)."""


class CnnOptions(KernelOptions):
    """Stages of convolutions, each followed by pooling (LeCun et al. 1989; Simonyan 2015)."""

    name: Literal["cnn"] = "cnn"
    stem: Literal["none", "haar"] = "none"
    """haar: fixed Haar wavelets first, halved sides, four times the channels (Mallat 1989)."""
    filters: Annotated[Counts, Field(min_length=1)] = [32, 64, 128]
    """Filters of each stage; the length is the number of stages."""
    convolutions: Count | Annotated[list[Count], BeforeValidator(listed)] = 2
    """Convolutions in each stage: one number for all, or one for each."""
    kernel_size: int = Field(3, ge=1)
    """Side of the convolution kernels, in pixels."""
    stride: int = Field(1, ge=1)
    """Stride of the first convolution of each stage."""
    pooling: Literal["max", "average", "none"] = "max"
    """Pooling at the end of each stage."""
    pool_size: int = Field(2, ge=2)
    """Side and stride of the pooling window, in pixels."""
    head: Literal["flatten", "global_average"] = "global_average"
    """How the last feature map becomes a vector."""
    dense_units: Counts = []
    """Units of the dense layers before the logits."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of features dropped after each stage and dense layer (Srivastava et al. 2014)."""
    spatial_dropout: bool = False
    """Drop whole feature maps after a stage (Tompson et al. 2015)."""
    batch_normalization: bool = True
    """Batch normalization after each convolution (Ioffe and Szegedy 2015)."""
    batch_normalization_momentum: float = Field(0.9, ge=0, lt=1)
    """Share of the moving statistics that a step keeps."""


class LenetOptions(KernelOptions):
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling."""

    name: Literal["lenet"] = "lenet"
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of features dropped before each dense layer."""
    initializer: Initializer = "glorot_uniform"
    """Distribution of the initial kernels."""


class ResidualOptions(KernelOptions):
    """What residual networks of three stages have."""

    name: str
    depth: int
    width: int = Field(16, ge=1)
    """Filters of the first stage; the next two have twice and four times as many."""
    batch_normalization_momentum: float = Field(0.9, ge=0, lt=1)
    """Share of the moving statistics that a step keeps."""
    stochastic_depth: float = Field(0.0, ge=0, lt=1)
    """Share of images that skip the last block; earlier ones less often (Huang et al. 2016)."""


class ResnetOptions(ResidualOptions):
    """The CIFAR form of ResNet (He et al. 2015, section 4.2)."""

    name: Literal["resnet"] = "resnet"
    depth: int = Field(20, ge=8)
    """Weighted layers, 6n + 2: 8, 14, 20, 32, 44, 56, 110."""


class WideResnetOptions(ResidualOptions):
    """Wide residual networks (Zagoruyko and Komodakis 2016)."""

    name: Literal["wide-resnet"] = "wide-resnet"
    depth: int = Field(16, ge=10)
    """Weighted layers, 6n + 4: 10, 16, 22, 28, 40."""
    widening: int = Field(4, ge=1)
    """How many times as many filters every block has as in a thin network."""
    width: int = Field(16, ge=1)
    """Filters of the stem, and of the first stage before widening."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of features dropped between the two convolutions of a block."""


class FastOptions(KernelOptions):
    """A small, wide network for training in few epochs (airbench94, Jordan 2024)."""

    name: Literal["fast"] = "fast"
    widths: Annotated[Counts, Field(min_length=1)] = [64, 256, 256]
    """Filters of each stage; the length is the number of stages."""
    scaling_factor: float = Field(1 / 9, gt=0)
    """What the logits are multiplied by."""
    batch_normalization_momentum: float = Field(0.6, ge=0, lt=1)
    """Share of the moving statistics that a step keeps."""


class PretrainedOptions(StartOptions):
    """A network of keras.applications, its preprocessing, and a new last layer (Keras 2015)."""

    name: Literal["pretrained"] = "pretrained"
    backbone: str = "MobileNetV2"
    """Network in keras.applications: ConvNeXtTiny, EfficientNetB0, MobileNetV2, ResNet50, ..."""
    weights: str = "imagenet"
    """imagenet (fetched by Keras), none, or a .weights.h5 file of the same network."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of features dropped before the last layer."""


ModelOptions = (
    CnnOptions | FastOptions | LenetOptions | PretrainedOptions | ResnetOptions | WideResnetOptions
)
