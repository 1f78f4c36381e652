"""What a network is made of: its dimensions, its layers per stage, and the supernet path it comes from.

No torch here, so that counting, searching and help texts start at once.

A layer is written as one letter, a stage as a word and an architecture as words joined by dashes: ``BSB-BB-B`` has
three stages, the first of them a basic, a sharing and again a basic layer. A path writes ``I`` for an identity cell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

BASIC, SHARING, IDENTITY = "B", "S", "I"
LAYER_NAMES = {BASIC: "basic", SHARING: "sharing", IDENTITY: "identity"}
POOLINGS = ("conv", "max", "average")
LAYER_LETTERS = {name: letter for letter, name in LAYER_NAMES.items()}
# Far beyond any network that is built: a file may state any numbers, and arithmetic or allocation with them would fail
# in ways of its own.
_MOST = {
    "patch_size": 2**16,
    "image_size": 2**16,
    "classes": 10**7,
    "channels": 2**10,
    "mlp_ratio": 2**6,
    "pool_kernel": 2**8,
    "widths": 2**15,
}
_MOST_STAGES = 16


def _check_stage(stage: int, letters: str, allowed: str) -> None:
    """Raise ValueError, naming stage, cell and reason, unless a stage is a legal sequence of layers."""
    map_at_hand = False
    for cell, letter in enumerate(letters, start=1):
        if letter not in allowed:
            raise ValueError(
                f"stage {stage}, cell {cell}: unknown layer {letter!r:.60}; use one of {', '.join(allowed)}"
            )
        if letter == SHARING and not map_at_hand:
            raise ValueError(
                f"stage {stage}, cell {cell}: a sharing layer needs an earlier basic layer in its stage; make it basic"
            )
        map_at_hand = map_at_hand or letter == BASIC
    if not map_at_hand:
        raise ValueError(f"stage {stage}: has no layer; give it at least one basic layer")


@dataclass(frozen=True, order=True)
class Architecture:
    """The layers of each stage, ``("BSB", "BB", "B")``: what is scored, counted, compared and exported.

    A stage begins with a basic layer; a sharing layer takes the attention map of the nearest basic layer before it.

    Raises:
        ValueError: a stage is empty, or holds a layer that is unknown or has no map to share.
    """

    stages: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("an architecture needs at least one stage")
        for number, letters in enumerate(self.stages, start=1):
            _check_stage(number, letters, BASIC + SHARING)

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """The architecture written as ``BSB-BB-B``."""
        return cls(tuple(text.split("-")))

    def __str__(self) -> str:
        return "-".join(self.stages)

    @property
    def depths(self) -> tuple[int, ...]:
        """Layers per stage."""
        return tuple(len(letters) for letters in self.stages)

    @property
    def counts(self) -> tuple[tuple[int, int], ...]:
        """(basic, sharing) layers per stage: all that cost depends on."""
        return tuple((letters.count(BASIC), letters.count(SHARING)) for letters in self.stages)


@dataclass(frozen=True, order=True)
class CellPath:
    """One choice for each cell of a supernet, ``("BIISII", "BBIIII", "IIIIIB")``: what a supernet is trained on.

    Raises:
        ValueError: a stage has no layer, or a cell that is unknown or shares with nothing before it.
    """

    stages: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("a path needs at least one stage")
        for number, letters in enumerate(self.stages, start=1):
            _check_stage(number, letters, BASIC + SHARING + IDENTITY)

    @classmethod
    def parse(cls, text: str) -> CellPath:
        """The path written as ``BIISII-BBIIII-IIIIIB``."""
        return cls(tuple(text.split("-")))

    @classmethod
    def canonical(cls, architecture: Architecture, cells: int) -> CellPath:
        """The path that places an architecture's layers first and its identities last in each stage of ``cells`` cells.

        Raises:
            ValueError: a stage has more layers than cells.
        """
        for number, depth in enumerate(architecture.depths, start=1):
            if depth > cells:
                raise ValueError(
                    f"stage {number} has {depth} layers, but the supernet has only {cells} cells per stage"
                )
        return cls(tuple(letters.ljust(cells, IDENTITY) for letters in architecture.stages))

    def __str__(self) -> str:
        return "-".join(self.stages)

    @property
    def architecture(self) -> Architecture:
        """What is left when the identity cells are dropped."""
        return Architecture(tuple(letters.replace(IDENTITY, "") for letters in self.stages))


@dataclass(frozen=True)
class NetworkSpec:
    """The dimensions of a network: everything but its layers.

    Attributes:
        kind: ``1d`` (a sequence of a class token and patch tokens, pooled by a strided 1-D convolution) or ``2d``
            (a grid of patch tokens, pooled by a strided 2-D convolution).
        image_size: (height, width) in pixels.
        patch_size: side of a square patch in pixels.
        widths: token width of each stage; tokens are pooled between stages.
        heads: attention heads of each stage.
        classes: outputs of the head.
        channels: channels of the image.
        mlp_ratio: hidden width of the MLP over the token width.
        pool_kernel: kernel size of token pooling, odd; its stride is 2.
        pooling: ``conv`` (the paper's strided convolution, which widens, too) or, for comparison, ``max`` or
            ``average`` over the same window and a linear map that widens.
        readout: ``mean`` over all tokens (PSViT) or ``class_token`` (DeiT).
        name: a label; has no effect.

    Raises:
        ValueError: dimensions that do not fit each other, or an image that the patch does not divide.
    """

    kind: str
    image_size: tuple[int, int]
    patch_size: int
    widths: tuple[int, ...]
    heads: tuple[int, ...]
    classes: int
    channels: int = 3
    mlp_ratio: int = 4
    pool_kernel: int = 3
    pooling: str = "conv"
    readout: str = "mean"
    name: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("1d", "2d"):
            raise ValueError(f"kind is {self.kind!r:.60}; use 1d or 2d")
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling is {self.pooling!r:.60}; use one of {', '.join(POOLINGS)}")
        if self.readout not in ("mean", "class_token"):
            raise ValueError(f"readout is {self.readout!r:.60}; use mean or class_token")
        if self.readout == "class_token" and self.kind == "2d":
            raise ValueError("a 2d network has no class token to read out; use readout=mean, or kind=1d")
        for field, most in _MOST.items():
            values = getattr(self, field)
            for value in values if isinstance(values, tuple) else (values,):
                if not 1 <= value <= most:
                    shown = value if abs(value) < 10**12 else f"a number of {value.bit_length()} bits"
                    raise ValueError(f"{field} is {shown}; it must be at least 1 and at most {most:,}")
        if len(self.widths) > _MOST_STAGES:
            raise ValueError(f"widths has {len(self.widths):,} stages; at most {_MOST_STAGES} can be built")
        if self.pool_kernel % 2 == 0:
            raise ValueError(f"pool_kernel is {self.pool_kernel}; it must be odd, so that pooling is centred")
        if len(self.image_size) != 2:
            raise ValueError(f"image_size is {self.image_size}; give a height and a width")
        for side in self.image_size:
            if side < self.patch_size or side % self.patch_size:
                fits = max(self.patch_size, round(side / self.patch_size) * self.patch_size)
                raise ValueError(
                    f"image size {self.image_size[0]}x{self.image_size[1]}: {side} is not a multiple of the patch size "
                    f"{self.patch_size}; use {fits}"
                )
        if not self.widths or len(self.widths) != len(self.heads):
            raise ValueError(f"widths {self.widths} and heads {self.heads} must cover the same stages, at least one")
        for stage, (width, heads) in enumerate(zip(self.widths, self.heads, strict=True), start=1):
            if heads < 1 or width < 1 or width % heads:
                raise ValueError(f"stage {stage}: width {width} cannot be split into {heads} heads of equal width")

    @property
    def stages(self) -> int:
        """How many stages the network has."""
        return len(self.widths)

    @property
    def patch_grid(self) -> tuple[int, int]:
        """(rows, columns) of patches in the image."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def class_tokens(self) -> int:
        """1 for a 1d network, whose sequence starts with a class token, else 0."""
        return 1 if self.kind == "1d" else 0

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of the tokens of each stage; a sequence is one row."""
        rows, columns = self.patch_grid
        grid = (1, rows * columns + 1) if self.kind == "1d" else (rows, columns)
        grids = []
        for _ in self.widths:
            grids.append(grid)
            grid = ((grid[0] - 1) // 2 + 1, (grid[1] - 1) // 2 + 1)
        return tuple(grids)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Number of tokens of each stage, the class token included."""
        return tuple(rows * columns for rows, columns in self.grids)

    def for_data(self, classes: int, image_size: tuple[int, int] | None = None) -> NetworkSpec:
        """The same network for other data: its number of classes and, unless None, its image size."""
        return replace(self, classes=classes, image_size=image_size or self.image_size)


def parse_image_size(text: str) -> tuple[int, int]:
    """``224`` -> (224, 224), ``224x160`` -> (224, 160), height first.

    Raises:
        ValueError: not one or two whole numbers above 0.
    """
    sides = str(text).lower().split("x")
    if not 1 <= len(sides) <= 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise ValueError(f"image size {text!r}: write 224, or height x width as 224x160")
    return int(sides[0]), int(sides[-1])
