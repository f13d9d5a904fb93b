import CoreAILanguageModels
import Foundation
import FoundationModels

/// {{name}}, from the folder `{{folder}}`. coreai-models finds in its metadata.json the model, whose inputs are
/// {{inputs}}, its states {{states}}, and its output {{logits}}.
public struct Student {
    let model: CoreAILanguageModel

    public init(folder: URL) async throws {
        model = try await CoreAILanguageModel(resourcesAt: folder)
    }

    /// One answer at the evaluation's temperature; coreai-models takes no top-p or top-k from these options.
    public func answer(_ prompt: String, maxTokens: Int = {{max_tokens}}) async throws -> String {
        let session = LanguageModelSession(model: model{{instructions_argument}})
        let options = GenerationOptions(temperature: {{temperature}}, maximumResponseTokens: maxTokens)
        return try await session.respond(to: prompt, options: options).content
    }
}
