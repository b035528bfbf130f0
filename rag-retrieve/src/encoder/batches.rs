use burn::tensor::{Device, Int, Tensor};
use ndarray::Array2;
use rag_core::{Encoding, TokenBatch, nn::fuses, padded};

/// Tokens that are read in one forward pass, with padding. On the CPU, what a layer makes of them stays near the
/// processor; other devices want more at once.
const TOKENS_ON_CPU: usize = 2048;
const TOKENS: usize = 16_384;

/// Calls `forward` on batches of texts of like length, so that little is padded, and puts its rows `[rows, width]`
/// back into the order of the texts, `[texts, width]`. Each batch comes with the segments of its tokens.
pub(crate) fn by_length(
    texts: &[Encoding],
    width: usize,
    pad: u32,
    device: &Device,
    forward: impl Fn(&TokenBatch, Tensor<2, Int>) -> Tensor<2>,
) -> Array2<f32> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&i| texts[i].ids.len());
    let mut found = Array2::zeros((texts.len(), width));
    let most = if fuses(device) { TOKENS_ON_CPU } else { TOKENS };
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        let fit = |&(i, &text): &(usize, &usize)| (i + 1) * texts[text].ids.len() <= most;
        let count = rest.iter().enumerate().take_while(fit).count().max(1);
        let (batch, others) = rest.split_at(count);
        rest = others;
        let ids: Vec<_> = batch.iter().map(|&i| &texts[i].ids).collect();
        let segments: Vec<_> = batch.iter().map(|&i| &texts[i].segments).collect();
        let tokens = TokenBatch::new(&ids, pad, device);
        let rows = forward(&tokens, padded(&segments, 0, device));
        let rows = rows.into_data().convert::<f32>();
        let values = rows.iter::<f32>().collect::<Vec<_>>();
        for (row, &i) in values.chunks(width).zip(batch) {
            found.row_mut(i).assign(&ndarray::aview1(row));
        }
    }
    found
}
