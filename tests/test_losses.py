"""The focal loss equals torchvision's; the box loss counts positives alone."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_iou, sigmoid_focal_loss

from aligncli import losses
from aligncli.losses import box_loss, focal_loss, iou_loss, loss_normalizer, pairwise_focal_loss
from aligncli.matching import BACKGROUND, IGNORED, Matches


def one_hot_reference(logits, labels, alpha, gamma):
    """Torchvision's on the rows that count."""
    rows = labels != IGNORED
    targets = F.one_hot(labels[rows].clamp(min=0), logits.shape[-1]) * (labels[rows] >= 0)[:, None]
    return sigmoid_focal_loss(logits[rows], targets.to(logits), alpha=alpha, gamma=gamma, reduction="sum")


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 1.0), (0.75, 3.5)])
def test_focal_loss_and_its_gradient_equal_torchvision_s(alpha, gamma):
    torch.manual_seed(0)
    labels = torch.randint(IGNORED, 7, (200,))
    logits = (torch.randn(200, 7) * 4).requires_grad_()
    wanted = one_hot_reference(logits, labels, alpha, gamma)
    (wanted_grad,) = torch.autograd.grad(wanted, logits)
    loss = focal_loss(logits, labels, alpha=alpha, gamma=gamma)
    (grad,) = torch.autograd.grad(3 * loss, logits)
    assert torch.allclose(loss, wanted, rtol=1e-5)
    assert torch.allclose(grad, 3 * wanted_grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.75, 3.5)])
def test_in_float64_the_focal_loss_is_torchvision_s_and_passes_gradcheck(alpha, gamma):
    torch.manual_seed(0)
    logits = (torch.randn(30, 4, dtype=torch.float64) * 3).requires_grad_()
    labels = torch.randint(IGNORED, 4, (30,))
    wanted = one_hot_reference(logits, labels, alpha, gamma)
    assert torch.allclose(focal_loss(logits, labels, alpha=alpha, gamma=gamma), wanted, rtol=1e-12)
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, labels, alpha=alpha, gamma=gamma), (logits,))


def test_the_focal_loss_does_not_depend_on_how_many_rows_are_taken_at_a_time(monkeypatch):
    torch.manual_seed(0)
    logits, labels = (torch.randn(2, 50, 7) * 4).requires_grad_(), torch.randint(IGNORED, 7, (2, 50))

    def loss_and_gradient():
        loss = focal_loss(logits, labels)
        return loss, torch.autograd.grad(loss, logits)[0]

    loss, gradient = loss_and_gradient()
    for rows in (1, 33):
        monkeypatch.setattr(losses, "CHUNK", 7 * rows)
        other_loss, other_gradient = loss_and_gradient()
        assert torch.allclose(other_loss, loss, rtol=1e-6)
        assert torch.allclose(other_gradient, gradient, rtol=1e-5, atol=1e-7)


def test_the_focal_loss_keeps_one_tensor_of_the_logits_size_for_backward():
    logits, labels = torch.randn(3, 40, 5, requires_grad=True), torch.randint(IGNORED, 5, (3, 40))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: saved.append(kept) or kept, lambda kept: kept):
        focal_loss(logits, labels)
    assert [kept.numel() for kept in saved] == [logits.numel()]


def test_a_second_derivative_of_the_focal_loss_is_refused_instead_of_wrong():
    """Its gradient is made in the forward pass, so autograd would take it for a constant."""
    logits = torch.randn(4, 3, requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0, 1, 2, BACKGROUND])).square()
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


def test_the_focal_loss_of_no_rows_is_zero():
    assert focal_loss(torch.zeros(2, 0, 5, requires_grad=True), torch.zeros(2, 0, dtype=torch.int64)) == 0


@pytest.mark.parametrize("value", [-1e4, 1e4])
def test_extreme_logits_stay_finite(value):
    logits = torch.full((3, 2), value, requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0, BACKGROUND, IGNORED]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_ignored_rows_have_neither_loss_nor_gradient():
    logits = torch.randn(4, 5, requires_grad=True)
    loss = focal_loss(logits, torch.full((4,), IGNORED))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_focal_loss_computes_in_float32_whatever_the_logits():
    logits = torch.randn(10, 3)
    labels = torch.randint(-2, 3, (10,))
    low = focal_loss(logits.bfloat16(), labels)
    assert low.dtype == torch.float32
    assert torch.allclose(low, focal_loss(logits.bfloat16().float(), labels))


def test_a_reference_without_area_harms_no_gradient():
    """As a negative it wants nothing; what it would want is not finite."""
    references = torch.tensor([[10.0, 10, 50, 30], [30, 30, 30, 30], [200, 30, 200, 60]])
    deltas = torch.randn(1, 3, 4, requires_grad=True)
    matches = Matches(torch.tensor([[1, BACKGROUND, BACKGROUND]]), torch.tensor([[[12.0, 8, 44, 30]] * 3]))
    box_loss(deltas, references, matches, beta=0.11, stds=(1.0, 1.0, 1.0, 1.0)).backward()
    assert deltas.grad is not None
    assert deltas.grad[0, 0].all()
    assert not deltas.grad[0, 1:].any()


def test_box_loss_is_smooth_l1_of_the_positives_deltas():
    references = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 9, 9]])
    boxes = torch.tensor([[[1.0, 0, 11, 10], [0, 0, 10, 10], [0, 0, 1, 1]]])
    matches = Matches(torch.tensor([[2, BACKGROUND, IGNORED]]), boxes)
    deltas = torch.zeros(1, 3, 4, requires_grad=True)
    loss = box_loss(deltas, references, matches, beta=0.11, stds=(0.1, 0.1, 0.2, 0.2))
    assert torch.allclose(loss, torch.tensor(1.0 - 0.11 / 2))  # dx = .1 / .1 = 1
    loss.backward()
    assert deltas.grad[0, 1:].abs().sum() == 0
    assert deltas.grad[0, 0].tolist() == [-1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(("rule", "none", "three"), [("positives", 1.0, 3.0), ("positives_plus_one", 1.0, 4.0)])
def test_normalizers(rule, none, three):
    empty = Matches(torch.full((1, 4), BACKGROUND), torch.zeros(1, 4, 4))
    some = Matches(torch.tensor([[0, 1, 2, IGNORED]]), torch.zeros(1, 4, 4))
    assert loss_normalizer(empty, rule).item() == none
    assert loss_normalizer(some, rule).item() == three


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.4, 1.5)])
def test_pairwise_focal_loss_is_the_focal_loss_of_one_row_with_each_label(alpha, gamma):
    logits, labels = torch.randn(2, 4, 5) * 3, torch.tensor([[0, 4, 2], [1, 1, 3]])
    pairs = pairwise_focal_loss(logits, labels, alpha=alpha, gamma=gamma)
    for image, row, truth in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(3)).tolist():
        alone = focal_loss(logits[image, row : row + 1], labels[image, truth : truth + 1], alpha=alpha, gamma=gamma)
        assert torch.allclose(pairs[image, row, truth], alone, rtol=1e-5)


def test_iou_loss_is_the_logarithm_of_torchvision_s_iou():
    boxes = torch.rand(20, 4) * 50
    boxes[:, 2:] += boxes[:, :2] + 1
    others = boxes + torch.rand(20, 4) * 0.8
    assert torch.allclose(iou_loss(boxes, others), -box_iou(boxes, others).diagonal().log(), atol=1e-5)
    assert torch.equal(iou_loss(boxes, boxes), torch.zeros(20))


def test_boxes_apart_or_empty_cost_a_finite_amount_without_gradient():
    boxes = torch.tensor([[0.0, 0, 4, 4], [5, 5, 5, 5]], requires_grad=True)
    loss = iou_loss(boxes, torch.tensor([[10.0, 10, 20, 20], [5, 5, 5, 5]]))
    loss.sum().backward()
    assert torch.allclose(loss, torch.tensor(1e6).log())
    assert torch.equal(boxes.grad, torch.zeros(2, 4))


def test_focal_loss_of_levels_is_that_of_all_rows_together():
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(2, count, 5, generator=generator, dtype=torch.float64) for count in (7, 1, 3)]
    labels = torch.randint(IGNORED, 5, (2, 11), generator=generator)
    joined = torch.cat(levels, dim=1).requires_grad_()
    for level in levels:
        level.requires_grad_()
    loss, wanted = focal_loss(levels, labels), focal_loss(joined, labels)
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(torch.cat([level.grad for level in levels], dim=1), joined.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gradient_may_take_the_place_of_the_logits(dtype):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 4, generator=generator).to(dtype).requires_grad_()
    inputs = torch.randn(2, 9, 4, generator=generator).to(dtype)
    labels = torch.randint(IGNORED, 5, (2, 9), generator=generator)
    gradients = []
    for overwrite in (False, True):
        logits = inputs @ weight.T
        before = logits.detach().clone()
        (gradient,) = torch.autograd.grad(focal_loss(logits, labels, overwrite=overwrite), weight)
        gradients.append(gradient)
        is_overwritten = not torch.equal(logits, before)
        assert is_overwritten == (overwrite and dtype == torch.float32)
    assert torch.equal(*gradients)


def test_logits_are_kept_where_they_have_no_gradient_or_belong_to_the_caller():
    for requires_grad in (False, True):
        logits = torch.randn(2, 3, 4, requires_grad=requires_grad)
        before = logits.detach().clone()
        focal_loss(logits, torch.zeros(2, 3, dtype=torch.int64), overwrite=True)
        assert torch.equal(logits, before)


def test_logits_that_the_backward_pass_needs_are_not_overwritten_in_silence():
    logits = torch.randn(2, 3, 4, requires_grad=True).exp()  # its gradient is its output
    loss = focal_loss(logits, torch.zeros(2, 3, dtype=torch.int64), overwrite=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
