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
        "01_notation", "02_pictures", "03_views", "04_features", "05_maps", "06_overlay", "07_metrics", "08_regions",
        "09_calibration", "10_scores", "11_lessons", "12_detector",
    ), "1_see_and_measure"),
    Part("II. Remember", "Nothing is trained. Good patches are kept, or their means and spreads, and distance is all.", (
        "13_coreset", "14_merging", "15_neighbors", "16_patchcore", "17_bank", "18_subspace", "19_gaussians",
        "20_semiorth", "21_alignment",
    ), "2_remember"),
    Part("III. Learn", "A network is trained on good pictures: to paint, to imitate, to tell apart.", (
        "22_recipe", "23_loop", "24_similarity", "25_riad", "26_vae", "27_favae", "28_saliency", "29_kdad", "30_synthetic",
        "31_receptive", "32_fcdd", "33_worth",
    ), "3_learn"),
    Part("IV. Compare", "What an experiment is evidence of, what watches a stream, and how it all gets faster.", (
        "34_experiment", "35_comparison", "36_uncertainty", "37_watch", "38_engines", "39_cluster", "40_your_own",
    ), "4_compare"),
    Part("Appendix. The engine room", "How parameters, files, tables, pages and the command line are kept.", (
        "41_parameters", "42_layouts", "43_folders", "44_store", "45_checkpoint", "46_sources", "47_plots", "48_report",
        "49_grid", "50_table", "51_console", "52_cli", "53_runtime", "54_page", "55_line",
    ), "5_engine_room"),
)  # fmt: skip
SOLUTIONS = Part("Solutions", "Every exercise of the book, worked out, with the number that you should see.",
                 tuple(part.solutions for part in PARTS))  # fmt: skip
CHINESE = Part("中文", "书中译成中文的章节。正文是中文，代码、输出与插图就是英文章节的。", (
    "index", "00_overview", "09_calibration", "16_patchcore",
))  # fmt: skip
READERS = {"student": "To understand it", "engineer": "To build on it", "analyst": "To get a report"}
