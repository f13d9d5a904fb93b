import CoreML
import Foundation
import Tokenizers

/// {{name}}, from `{{package}}` and `{{tokenizer}}` in the folder `{{folder}}`.
public final class Student {
    public static let context = {{context}}  // tokens of prompt and answer; the size of the caches is fixed

    let model: MLModel
    let tokenizer: any Tokenizer

    /// `function` is an adapter's, of a package that holds several. An app that has the package among its sources holds
    /// it compiled: give `MLModel.load` that URL instead.
    public init(folder: URL, function: String? = nil) async throws {
        let configuration = MLModelConfiguration()
        configuration.functionName = function
        let compiled = try await MLModel.compileModel(at: folder.appending(path: "{{package}}"))
        model = try await MLModel.load(contentsOf: compiled, configuration: configuration)
        tokenizer = try await AutoTokenizer.from(modelFolder: folder.appending(path: "{{tokenizer}}"))
    }

    /// The most likely answer, token by token.
    public func answer(_ prompt: String, maxTokens: Int = {{max_tokens}}) async throws -> String {
        let messages: [Message] = [{{system}}["role": "user", "content": prompt]]
        var next = try tokenizer.applyChatTemplate(
            messages: messages, tools: nil, additionalContext: {{template_options}})
        var answer: [Int] = []
        var end = 0
        let state = model.makeState()  // holds {{states}}
        while answer.count < maxTokens, end + next.count <= Student.context {
            end += next.count
            let token = try await mostLikely(after: next, end: end, state: state)
            if token == tokenizer.eosTokenId { break }
            answer.append(token)
            next = [token]
        }
        return tokenizer.decode(tokens: answer)
    }

    /// The mask is 0 where a token sees: itself and all before it; the caches hold those.
    private func mostLikely(after tokens: [Int], end: Int, state: MLState) async throws -> Int {
        let start = end - tokens.count
        let mask = tokens.indices.flatMap { row in (0..<end).map { $0 <= start + row ? Float(0) : Float(-1e4) } }
        let inputs = [
            "{{ids}}": MLTensor(shape: [1, tokens.count], scalars: tokens.map(Int32.init)),
            "{{mask}}": MLTensor(shape: [1, 1, tokens.count, end], scalars: mask).cast(to: Float16.self),
        ]
        let outputs = try await model.prediction(from: inputs, using: state)
        let first = outputs["{{logits}}"]!.argmax(alongAxis: -1)
        return Int(await first.shapedArray(of: Int32.self).scalars.last!)
    }
}
