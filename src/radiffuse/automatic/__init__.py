"""The method auto: candidates are judged on cases left out of their training, and the best is trained on all labels.

OUT/choice.json         what was tried, chosen, and why; what is in it is not tried again
OUT/folds/NAME/STEPS/   a run per fold, with the scores of the cases that it did not see
OUT/members/NAME/       the runs that predict together as OUT, trained on all labels
OUT/fewer/fold-K/       the same with half of the labels, for what more labels would bring
OUT/validation/         scores of every labelled case by networks that did not see it
"""
