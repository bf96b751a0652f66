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
    "A40": "All convolutions doubled make 44.66 M parameters, all but the stem the published 44.60 M: the stem stays.",
    "A41": "Dropout after each linear layer of the classifier would be on the logits of the only one; it is before it.",
    "A42": "Random resized cropping, as the text says, or a crop from a border of 4 pixels, as in the code that it "
           "follows: the border everywhere, the other beside it.",
    "A43": "Standardised with mean and deviation of the training images' pixels; the deviations in the code that is "
           "followed (.2023, .1994, .2010) are a sixth too small.",
    "A44": "'Best test accuracy' is of an epoch chosen by the test images. It stands here under that name, with the "
           "last epoch's beside it, and a run that is judged by validation images alone. The rate follows the "
           "training loss (factor .1, relative threshold 1e-4), with validation images their loss, never the test's.",
    "A45": "The same settings stand in the report four times, with .8911, .8984, .8945 and .8920; here they are one "
           "run a seed. Differences are tested on the last epochs' models.",
    "A46": "The text blames the weight decays .01 and .001; the table, which counts, says .01 and .005.",
    "A47": "MSE, Huber (delta 1), soft margin and binary cross-entropy: of the logits against one-hot targets (+1 and "
           "-1 for soft margin), mean over images and classes, as in PyTorch.",
    "A48": "Leaky ReLU has slope .01, ELU alpha 1, GELU is exact.",
    "A49": "The decay is added to the gradient of every optimizer, as published, which Adam and its kin then rescale; "
           "beside it stands the decay past the optimizer (AdamW).",
    "A50": "VGG-A's classifier is 512-512-10 (assumed). 30 epochs are run; momentum 0 and .9 both.",
    "A51": "The band is between the least and the largest loss over the rates at the same update; runs that diverged "
           "are listed and leave it.",
    "A52": "'Change of the gradient' is |g(w') - g(w)| on one batch before and after its update; between neighbouring "
           "batches, and along the gradient at the rates, stand beside it.",
    "A53": "The published denominator lr |g| is the way of the weights only for plain SGD; the true |w' - w| is used, "
           "the published form stands beside it; the maximum is over the rates.",
    "A54": "Maps of convolution, batch norm and ReLU are all shown.",
    "A55": "LeNet-5 for 32x32x3: 5x5 convolutions of 6 and 16 filters, each with a 2x2 max pool, 120 and 84 hidden "
           "units; SGD with momentum .9, batches of 128, rate .005 without and .02 with batch norm, L2 1e-4.",
    "A56": "'Validation accuracy decreases up to epoch 22' must be the loss.",
    "A57": "Swish .735 is of a net with batch norm, ReLU .70 of one without: all four are run.",
    "A58": "L1 seems to have had lambda 1, L2 .01. L1 by its subgradient gives no exact zeros, by the proximal step it "
           "does; compared at strengths of equal training loss.",
    "A59": "Depth and batch of the ResNet are not named: ResNet-20 and ResNet-18, batches of 128, momentum .9; the "
           "rate falls once at 25 or every 25.",
    "A60": "The report's formula has lost a plus: 9 M D^2 + M N D^2 products, so the ratio is 9N/(9 + N), below 9.",
    "A63": "ln K is the loss of equal logits; what those of each initialiser cost on average stands beside it.",
    "A64": "float32 in training, float64 in checks.",
    "A67": "Seconds of training an epoch, without evaluation and without the first epoch; on whatever machine it is.",
}
