"""What the reports leave open or got wrong, and what is done here: one line each, shown on the pages."""

DECISIONS = {
    "A01": "Adam's eps: report R3 has it inside the root, sqrt(v + eps), the paper outside; both are run.",
    "A02": "Adam's bias correction uses the number of updates done, t + 1: with t the first update is 0/0.",
    "A03": "Adam's rate: 2e-3 as in the list of settings, not 1e-3 as in the text.",
    "A04": "The decay .995 is per epoch (.86 after 30 epochs); per step, where the rate is 3e-7 of itself in the"
           " end, is run beside it.",
    "A05": "Adam has no cycles: 3 cycles of 2 x 500 updates only say that there are 3,000 of them, 30 epochs.",
    "A07": "The narrow 7-layer net of R3 is not described; hidden layers 50, 30, 20, 20, 10, 10 are assumed.",
    "A08": "Whether R3's wide nets have batch norm is not said; both are run.",
    "A09": "R3's four cells are inference statistics of one trained model, here of each seed's.",
    "A10": "Population variance by the law of total variance: mean of the batches' variances plus the variance "
           "of their means.",
    "A11": "Layer by layer, each with the statistics below already exact; one pass is shown beside it.",
    "A12": "AdaptiveBN reads the test images (not their labels): transductive, and named so.",
    "A13": "Half of the test images are flipped, drawn once with a fixed seed; statistics from the flipped and "
           "from the clean images are both shown.",
    "A14": "Differences of some tenths of a point: sampling error and a paired test stand beside each.",
    "A15": "lambda sum W^2 has the gradient 2 lambda W.",
    "A16": "The penalty is on weight matrices only: not on biases, gamma or beta.",
    "A18": "A mean absolute error hides single wrong entries; the largest relative error stands beside it.",
    "A19": "Two relative errors are in use, up to 2 apart: |a - n| / max(eps, |a| + |n|) and |a - n| / max(|a|, "
           "|n|).",
    "A20": "Whether 10e-7 is 1e-6 or 1e-7: every error has to be below both.",
    "A21": "With 2 samples batch norm gives +-1, and the gradient below it is nearly zero whatever it should be:"
           " such a check sees almost nothing. It is run as published, and shown to pass a wrong gradient.",
    "A22": "R2 checks a net with 10 inputs: that is another, smaller net, checked as such.",
    "A23": "The gradient from above comes from the loss, or is random: with ones the sum of a normalised output "
           "is constant and its gradient zero.",
    "A24": "R2's Dense layer holds the ReLU and batch norm follows it; the course has it before. Both orders are"
           " run.",
    "A25": "Batch norm after every hidden layer, not after the classifier.",
    "A26": "A bias right before batch norm has the gradient zero; it is there, as in R2, and the check knows it.",
    "A27": "Running statistics: .9 is the weight of the old ones.",
    "A29": "'Xavier' is N(0, 1/fan_in), as R2 defines it.",
    "A30": "N(0, sigma^2) for the weights of all layers; biases 0.",
    "A31": "3 and 9 layers count the classifier.",
    "A32": "The rate of update t = 0, 1, ... is the triangle's at t; it starts at its least.",
    "A33": "Images are shuffled every epoch, keyed by seed and epoch.",
    "A34": "Every pixel is standardised by mean and deviation of the training split alone.",
    "A35": "Validation images are drawn at random by the run's seed; their indices follow from it.",
    "A36": "'Uniformly in [1e-5, 1e-1]' must be log-uniform, as the lambdas that are reported show.",
    "A37": "Hidden size 50, weights N(0, 1/fan_in): not stated in R1, the course's defaults.",
    "A39": "The gradient of the cost has the 2 lambda W that R1's formulas leave out.",
    "A64": "float32 in training, float64 in checks.",
}
