import Foundation
import MLXHuggingFace
import MLXLLM
import MLXLMCommon
import Tokenizers

/// {{name}}, from the folder `{{folder}}`.
public struct Student: Sendable {
    let container: ModelContainer

    public init(folder: URL) async throws {
        container = try await LLMModelFactory.shared.loadContainer(
            from: folder, using: #huggingFaceTokenizerLoader())
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
