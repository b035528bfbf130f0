use burn::tensor::{Device, Tensor, TensorData};
use rag_core::nn::MASKED;

/// Where the tokens stand that a decoder reads at once, and which tokens each of them sees.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Positions of the tokens that are read.
    pub read: Vec<usize>,
    /// Positions of the tokens that they see: what is cached, and themselves.
    pub seen: Vec<usize>,
    /// [`MASKED`] where a token does not see another, `[1, 1, read, seen]`; `None` where all see all.
    pub bias: Option<Tensor<4>>,
}

impl Places {
    /// `length` tokens, one after the other, that follow `past` cached ones.
    pub fn after(past: usize, length: usize, device: &Device) -> Self {
        let (read, seen) = (
            (past..past + length).collect(),
            (0..past + length).collect(),
        );
        // A single new token sees everything.
        let sees = |token: usize, other: usize| other <= past + token;
        let bias = (length > 1).then(|| bias([length, past + length], sees, device));
        Self { read, seen, bias }
    }

    /// Tokens of a tree: each follows its parent, which stands before it in the list, and sees its ancestors.
    pub fn tree(parents: &[Option<usize>], device: &Device) -> Self {
        let count = parents.len();
        let mut depths = Vec::with_capacity(count);
        let mut sees = vec![false; count * count];
        for (node, parent) in parents.iter().enumerate() {
            if let Some(parent) = *parent {
                sees.copy_within(parent * count..(parent + 1) * count, node * count);
            }
            sees[node * count + node] = true;
            depths.push(parent.map_or(0, |parent| depths[parent] + 1));
        }
        let bias = bias(
            [count, count],
            |node, other| sees[node * count + other],
            device,
        );
        Self {
            seen: depths.clone(),
            read: depths,
            bias: Some(bias),
        }
    }
}

fn bias(
    [read, seen]: [usize; 2],
    sees: impl Fn(usize, usize) -> bool,
    device: &Device,
) -> Tensor<4> {
    let hides = |token: usize, other: usize| {
        if sees(token, other) {
            0.0
        } else {
            MASKED as f32
        }
    };
    let bias: Vec<f32> = (0..read)
        .flat_map(|token| (0..seen).map(move |other| (token, other)))
        .map(|(token, other)| hides(token, other))
        .collect();
    Tensor::from_data(TensorData::new(bias, [1, 1, read, seen]), device)
}
