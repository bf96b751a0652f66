"""fastnet: image classifiers trained with every forward and backward pass written by hand.

    import fastnet as fn
    data = fn.data.load("shapes10")
    model = fn.build("mlp3-bn", seed=0)
    run = fn.fit(model, data, fn.SGD(momentum=0.9), fn.schedules.constant(0.01), epochs=5)

Importing it loads neither Numba, CuPy nor matplotlib.
"""

from fastnet import backend, check, data, lab
from fastnet.lab.search import Tuner
from fastnet.nn import initializers
from fastnet.nn.blocks import Concatenate, DepthwiseSeparable, Fire, Residual, ZeroPadShortcut
from fastnet.nn.convolution import Conv2d
from fastnet.nn.layer import Context, Layer
from fastnet.nn.layers import (
    ELU,
    GELU,
    BatchNorm,
    Dropout,
    Flatten,
    LeakyReLU,
    Linear,
    ReLU,
    Sigmoid,
    SiLU,
    Swish,
    Tanh,
)
from fastnet.nn.losses import loss_and_gradients
from fastnet.nn.models import MODELS, build
from fastnet.nn.pooling import AvgPool2d, GlobalAvgPool, MaxPool2d
from fastnet.nn.sequential import Sequential
from fastnet.nn.trace import trace
from fastnet.optim import penalties, schedules
from fastnet.optim.optimizers import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, RMSprop
from fastnet.optim.penalties import L1, L2, DecoupledDecay, WeightDecay, sparsity
from fastnet.train.evaluation import evaluate
from fastnet.train.loop import Run, fit
from fastnet.train.lr_range import lr_range_test
from fastnet.train.step import TrainStep
from fastnet.train.stopping import EarlyStopping
from fastnet.train.trained import Trained, load_run
from fastnet.train.weights import load_weights, save_torch_weights

__version__ = "0.1.0"

__all__ = ["ELU", "GELU", "L1", "L2", "MODELS", "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "AvgPool2d",
           "BatchNorm", "Concatenate", "Context", "Conv2d", "DecoupledDecay", "DepthwiseSeparable", "Dropout",
           "EarlyStopping", "Fire", "Flatten", "GlobalAvgPool", "Layer", "LeakyReLU", "Linear", "MaxPool2d", "RMSprop",
           "ReLU", "Residual", "Run", "Sequential", "SiLU", "Sigmoid", "Swish", "Tanh", "TrainStep", "Trained",
           "Tuner", "WeightDecay", "ZeroPadShortcut", "backend", "build", "check", "data", "evaluate", "fit",
           "initializers", "lab", "load_run", "load_weights", "loss_and_gradients", "lr_range_test", "penalties",
           "save_torch_weights", "schedules", "sparsity", "trace"]
