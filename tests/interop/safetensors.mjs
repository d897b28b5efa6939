// The one tensor "logits" [1, T, V] of a file that `resect-cli logits` wrote, as log-probabilities per position.
import {readFileSync} from "node:fs";

export function logProbabilities(path) {
    const bytes = readFileSync(path);
    const headerBytes = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.subarray(8, 8 + headerBytes).toString("utf8"));
    const {dtype, shape, data_offsets: [begin, end]} = header.logits;
    if (dtype !== "F32" || shape.length !== 3 || shape[0] !== 1) throw new Error(`expected logits [1, T, V] of F32, found ${dtype} ${shape}`);
    const data = bytes.buffer.slice(bytes.byteOffset + 8 + headerBytes + begin, bytes.byteOffset + 8 + headerBytes + end);
    const values = new Float32Array(data);
    const [, length, vocabulary] = shape;
    const rows = [];
    for (let t = 0; t < length; ++t) {
        const row = Float64Array.from(values.subarray(t * vocabulary, (t + 1) * vocabulary));
        const most = row.reduce((a, b) => Math.max(a, b), -Infinity);
        const norm = most + Math.log(row.reduce((sum, x) => sum + Math.exp(x - most), 0));
        rows.push(row.map((x) => x - norm));
    }
    return rows;
}
