"""The table of contents by parts: every chapter of the book stands in exactly one, and those that are translated once more
as Chinese ones (tests/test_site.py holds it).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    "A part of the book: what it is called, what is learnt there, and its chapters as they are read."

    title: str
    about: str
    chapters: tuple[str, ...]
    solutions: str = ""  # the notebook of `nbs/solutions` with those of its exercises


PARTS = (
    Part("0. Overview", "The whole book on one page: six ideas side by side, and which to take when.", (
        "00_overview",
    ), "0_overview"),
    Part("I. See and measure", "From a file to a verdict: pictures, features, maps, metrics, thresholds, a detector.", (
        "01_notation", "02_pictures", "03_views", "04_features", "05_maps", "46_overlay", "06_metrics", "47_regions",
        "07_calibration", "42_scores", "45_lessons", "08_detector",
    ), "1_see_and_measure"),
    Part("II. Remember", "Nothing is trained. Good patches are kept, or their means and spreads, and distance is all.", (
        "09_coreset", "48_merging", "10_neighbors", "11_patchcore", "49_bank", "50_subspace", "51_gaussians",
        "12_semiorth", "43_alignment",
    ), "2_remember"),
    Part("III. Learn", "A network is trained on good pictures: to paint, to imitate, to tell apart.", (
        "13_recipe", "14_loop", "15_similarity", "16_riad", "52_vae", "17_favae", "53_saliency", "18_kdad", "19_synthetic",
        "54_receptive", "20_fcdd", "66_worth",
    ), "3_learn"),
    Part("IV. Compare", "What an experiment is evidence of, what watches a stream, and how it all gets faster.", (
        "22_experiment", "24_comparison", "36_uncertainty", "35_watch", "38_engines", "31_cluster", "34_your_own",
    ), "4_compare"),
    Part("Appendix. The engine room", "How parameters, files, tables, pages and the command line are kept.", (
        "33_parameters", "25_layouts", "37_folders", "26_store", "27_checkpoint", "44_sources", "21_plots", "23_report",
        "28_grid", "29_table", "30_console", "32_cli", "39_runtime", "40_page", "41_line",
    ), "5_engine_room"),
)  # fmt: skip
SOLUTIONS = Part("Solutions", "Every exercise of the book, worked out, with the number that you should see.",
                 tuple(part.solutions for part in PARTS))  # fmt: skip
CHINESE = Part("中文", "书中译成中文的章节。正文是中文，代码、输出与插图就是英文章节的。", (
    "index", "00_overview", "07_calibration", "11_patchcore",
))  # fmt: skip
READERS = {"student": "To understand it", "engineer": "To build on it", "analyst": "To get a report"}
