import Foundation
import MLXHuggingFace
import MLXLLM
import MLXLMCommon
import Tokenizers

/// {{base}} with the adapter of {{name}} from the folder `{{folder}}`.
public struct Student: Sendable {
    let container: ModelContainer
    let adapter: LoRAContainer

    /// `base` is the folder of {{base}}, revision {{revision}}: the adapter fits no other.
    public init(base: URL, adapter folder: URL) async throws {
        container = try await LLMModelFactory.shared.loadContainer(
            from: base, using: #huggingFaceTokenizerLoader())
        adapter = try LoRAContainer.from(directory: folder)
        let loaded = adapter
        try await container.perform { context in try loaded.load(into: context.model) }
    }

    /// Back to the base; another adapter can be loaded then.
    public func unload() async {
        let loaded = adapter
        await container.perform { context in loaded.unload(from: context.model) }
    }

    /// One answer, piece by piece, with the temperature, top-p and top-k of the evaluation; mlx-swift-lm takes top-p of
    /// the distribution before the temperature.
    public func answer(_ prompt: String, maxTokens: Int = {{max_tokens}}) -> AsyncThrowingStream<String, Error> {
        let session = ChatSession(
            container,
            instructions: {{instructions}},
            generateParameters: GenerateParameters(
                maxTokens: maxTokens, temperature: {{temperature}}, topP: {{top_p}}, topK: {{top_k}}),
            additionalContext: {{template_options}})
        return session.streamResponse(to: prompt)
    }
}
