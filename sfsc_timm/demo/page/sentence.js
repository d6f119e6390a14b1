// What a visitor is told where something is wrong; any other error is a fault of ours and is told in general words.

export class Sentence extends Error {}

export const told = (error, otherwise) => (error instanceof Sentence ? error.message : otherwise);
