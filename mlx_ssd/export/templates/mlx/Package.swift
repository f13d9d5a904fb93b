// swift-tools-version: 6.1
import PackageDescription

// Written for mlx-swift-lm 3.31.4 and swift-transformers 1.3.3, from their sources; not compiled, not run on a device.
let package = Package(
    name: "Student",
    platforms: [.macOS(.v14), .iOS(.v17)],
    products: [.library(name: "Student", targets: ["Student"])],
    dependencies: [
        .package(url: "https://github.com/ml-explore/mlx-swift-lm", exact: "3.31.4"),
        .package(url: "https://github.com/huggingface/swift-transformers", exact: "1.3.3"),
    ],
    targets: [
        .target(
            name: "Student",
            dependencies: [
                .product(name: "MLXLLM", package: "mlx-swift-lm"),
                .product(name: "MLXLMCommon", package: "mlx-swift-lm"),
                .product(name: "MLXHuggingFace", package: "mlx-swift-lm"),
                .product(name: "Tokenizers", package: "swift-transformers"),
            ]),
        .executableTarget(name: "chat", dependencies: ["Student"]),
    ],
    swiftLanguageModes: [.v5]
)
